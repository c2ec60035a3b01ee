"""The page in the browser: ``python app.py``, or ``ldm-app``; see docs/app.md."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ldm.arguments import Parser
from ldm.stopping import listen

EXAMPLES = """examples:
    python app.py                                                # http://127.0.0.1:7860, on this machine only
    python app.py --model stable-diffusion-v1-5 --port 7861
    python app.py --api                                          # with the server of scripts.serve under /sdapi/v1
    python app.py --host 0.0.0.0 --token SECRET                  # for others: name and password, which is the token
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; the defaults are here."""
    parser = Parser(description="One page for all of it, in the browser.", epilog=EXAMPLES)
    add = parser.add_argument
    add("--model", metavar="NAME", help="that is opened first, as the page's menu has it (the small model)")
    add("--host", default="127.0.0.1", help="address to listen at (this machine only)")
    add("--port", type=int, help="(7860 or the next that is free)")
    add("--token", help="the password that is asked for; for other machines one is drawn if none is given")
    add("--outdir", type=Path, default=Path("outputs/app"), help="where results go (outputs/app)")
    add("--api", action="store_true", help="serve A1111's API as well, see docs/server.md")
    add("--precision", default="autocast", choices=["full", "autocast", "bf16", "fp16"], help="of the network")
    add("--device", help="cpu, cuda, ... (a GPU if there is one)")
    add("--trust_config", action="store_true", help="YAMLs beside weights may name classes of any package")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until a signal comes, and print its address.

    Raises:
        UserError: there is no such model or address, or a package is missing.
    """
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported, which looks for newer versions
    from ldm.web.server import address, check_installed, free_port, make_app
    from ldm.web.server import listen as serve

    check_installed("the page", "gradio")
    from ldm.web.quick_gradio import import_gradio

    import_gradio()
    from ldm.web.jobs import Desk
    from ldm.web.page.build import mount
    from ldm.web.rules import rules_for

    desk = Desk(options.model, device=options.device, precision=options.precision)
    rules = rules_for(options.host, options.token)
    port = free_port(options.host, options.port)
    app = make_app(desk, rules)
    if options.api:
        from ldm.web.a1111.fields import Limits
        from ldm.web.a1111.routes import add_routes

        add_routes(app, desk, options.outdir / "api", Limits())
    mount(app, desk, options.outdir)
    print(f"{address(options.host, port)} (Ctrl-C ends it)", flush=True)
    if rules.token and not options.token:
        print(f"token: {rules.token} (the password; any name will do)", flush=True)
    serve(app, options.host, port)


def run() -> None:
    """``main`` with exit codes, see ``run_command``."""
    from ldm.running import run_command

    run_command(main)


def command() -> None:
    """The console command: ``run`` in a process of its own."""
    listen()
    run()
