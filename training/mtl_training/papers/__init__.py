"""What the literature asks of a system: counts, cards, released weights, branch searches."""
