"""Where training and evaluation text comes from.  Knows no models."""
