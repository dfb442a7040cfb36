"""What other programs ask over HTTP, on the port of the page. Knows neither gradio nor torch."""
