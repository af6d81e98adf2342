"""What runs inside a Python service's process: the remote-service stub, its lifecycle, and the SDK.

Must not import the supervisor: a service's process knows the protocol alone.

Exit codes: 0 the service ended well or as asked; 1 user code failed; what ``sys.exit`` said; 70 the stub itself could
not do its work (no controller, an interpreter without what it needs, a fault of its own).
"""
