"""Look at a result (colours, labels, live queries) or at a scan (colours) in the browser."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from xmask3d.cli.arguments import named_scan


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `xmask3d view`."""
    parser.add_argument("path", type=Path, help="a result's folder, a file of --save-features, or a scan")
    parser.add_argument("--port", type=int, default=8080, help="port of the local server (default: 8080)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: this machine only)")


def run(options: Namespace) -> int:
    """Serve the page until interrupted."""
    from xmask3d.scan.scan import check_exists

    options.path = named_scan(options.path)
    check_exists(options.path)

    from xmask3d.segment.view_result import open_viewer

    viewer = open_viewer(options.path, options.host, options.port)
    print(f"open http://{options.host}:{viewer.port} in a browser; Ctrl-C ends it", flush=True)
    viewer.wait()
    return 0
