"""What limits mean: windows, periods, money, and what a request may use at most. Pure; time comes in as a number."""
