"""The page: one module per tab. Imports gradio and studio, never an engine."""
