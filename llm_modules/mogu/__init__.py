"""MoGU: a glad and an unwilling responder in one model, and routers that weigh them by token."""
