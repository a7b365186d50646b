"""The unit that is shipped: contract, transform, model, labels, golden vectors and provenance under one digest."""
