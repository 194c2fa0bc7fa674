"""int8: how a graph is quantized, and which of its layers must stay in float32."""
