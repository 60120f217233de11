"""How well networks do: their predictions against labels, beside those who look at no picture."""
