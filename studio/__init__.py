"""Flash Studio's services: requests, jobs, ledger, gallery. Never imports Gradio."""

__version__ = "0.1.0"
