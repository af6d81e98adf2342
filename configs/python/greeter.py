"""A service as a plain function. It runs in a thread, and looks at ``ctx.stopping`` to learn of its stop.

Must not ignore it: what does not end within its stop timeout is killed.
"""

from svcd import Context


def greet(ctx: Context) -> None:
    while not ctx.stopping.wait(timeout=1):
        print(f"hello from {ctx.name}, invocation {ctx.invocation}", flush=True)
