"""What runs a bundle's network: one file per engine, and which one a machine should use."""
