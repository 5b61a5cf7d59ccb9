"""Operations: whatever the agent waits for. Begun, reported on and completed here, by one path for all doors."""
