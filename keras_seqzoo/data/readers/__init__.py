"""Files of labelled and tagged sequences."""
