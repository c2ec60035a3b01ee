"""A server that programs written for A1111's web UI can ask for pictures: its API, as far as it has a meaning here.

    python -m scripts.serve                                        # the small model at http://127.0.0.1:7860
    python -m scripts.serve --model stable-diffusion-v1-5 --port 7861
    python -m scripts.serve --host 0.0.0.0 --token SECRET          # for other machines, which bring the token

One model is in memory; requests wait in a line. What there is, and what is not: docs/server.md. Needs the extra 'web':
pip install -c constraints.txt '.[web]'
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ldm.arguments import Parser
from ldm.util import run_command
from ldm.web.jobs import Desk
from ldm.web.rules import rules_for
from ldm.web.server import address, check_installed, free_port, listen, make_app


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--model", metavar="NAME", help="of requests that name none, as /sdapi/v1/sd-models has it (the small model)")
    add("--host", default="127.0.0.1", help="address to listen at (this machine only)")
    add("--port", type=int, help="(7860 or the next that is free)")
    add("--token", help="what requests must bring; for other machines one is drawn if none is given")
    add("--outdir", type=Path, default=Path("outputs/server"), help="pictures that are to be saved (outputs/server)")
    add("--most-pixels", type=int, default=1024 * 1024, metavar="N", help="of a picture (1048576)")
    add("--most-pictures", type=int, default=16, metavar="N", help="of a request (16)")
    add("--precision", default="autocast", choices=["full", "autocast", "bf16", "fp16"], help="of the network")
    add("--device", help="cpu, cuda, ... (a GPU if there is one)")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    check_installed("the server")
    from ldm.web.a1111.fields import Limits
    from ldm.web.a1111.routes import add_routes

    desk = Desk(options.model, device=options.device, precision=options.precision)
    rules = rules_for(options.host, options.token)
    port = free_port(options.host, options.port)
    app = make_app(desk, rules)
    add_routes(app, desk, options.outdir, Limits(options.most_pixels, options.most_pictures))
    print(f"{address(options.host, port)}/sdapi/v1 (Ctrl-C ends it)", flush=True)
    if rules.token and not options.token:
        print(f"token: {rules.token}", flush=True)
    listen(app, options.host, port)


if __name__ == "__main__":
    run_command(main)
