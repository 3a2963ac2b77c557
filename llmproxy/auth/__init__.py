"""Who a caller is."""
