"""What a run decides by evidence: pure functions of what was measured, which return a `Decision`, and the evidence for them."""
