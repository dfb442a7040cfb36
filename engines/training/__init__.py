"""What every training shares: the algebra of diffusion, and low-rank changes that can be trained."""
