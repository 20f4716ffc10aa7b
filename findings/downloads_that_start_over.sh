#!/usr/bin/env bash
# huggingface_hub 2.4.0: a download that breaks off is resumed in whole blocks of 10 MiB alone. Of a file whose connection breaks after
# each 9 MiB nothing is ever kept: every try asks for the first byte again, and after the sixth the download fails, with 54 MiB on the
# way and the server serving ranges. With 11 MiB at a time the same file comes.
#
# One would guess that it goes on where it was ("Trying to resume download..." is what it says), as curl -C - and wget -c do. It matters
# here, since proxies and load balancers that end a connection after a time or a size are common before clusters: a model would
# never come, however often it is tried, and the message blames the last connection.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0

cat > try.py <<'PY'
import hashlib
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MIB = 1 << 20
CONTENT = bytes(range(256)) * (24 * MIB // 256)
COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    at_a_time = 0
    asked = []

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(found[1]) if found else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        if self.command == "GET":
            self.asked.append(begin)
            self.wfile.write(CONTENT[begin : begin + self.at_a_time])
            self.close_connection = True


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_VERBOSITY": "error", "HF_HUB_DISABLE_XET": "1"}
import huggingface_hub

print("huggingface_hub", huggingface_hub.__version__)


def fetch(mib):
    Hub.at_a_time, Hub.asked = mib * MIB, []
    try:
        file = huggingface_hub.hf_hub_download("org/name", "model.bin", revision=COMMIT, cache_dir=f"cache-{mib}")
        outcome = "whole" if open(file, "rb").read() == CONTENT else "another file"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}".splitlines()[0][:90]
    print(f"{mib} MiB at a time: requests from byte {Hub.asked}: {outcome}")
    return outcome, Hub.asked


outcome, asked = fetch(11)
assert outcome == "whole" and {10 * MIB, 20 * MIB} <= set(asked), "blocks of another size are kept now"
outcome, asked = fetch(9)
if outcome == "whole" or any(asked):
    sys.exit("it goes on where it was now")
PY
venv/bin/python try.py
