"""How the literature measures: figures that may be held against printed ones."""
