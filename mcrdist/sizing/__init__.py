"""What a run takes: memory a rank, and settings that keep it within a budget; time on given hardware."""
