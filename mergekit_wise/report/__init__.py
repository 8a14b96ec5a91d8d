"""Records -> tables and plots. No torch."""
