"""The settings: one YAML file, read once, checked whole, frozen."""
