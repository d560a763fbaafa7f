"""Networks that several papers share, with the parameter names of their official releases."""
