#!/usr/bin/env bash
# aiohttp 3.14.3 on CPython 3.11's asyncio: an idle TLS connection of a client holds 256 KiB in one buffer of asyncio.sslproto, for as long as it is open,
# though TLS hands over 16 KiB at a time; and each time that something arrives asyncio asks the socket for up to 256 KiB anew.
#
# One would guess, and the guess here was, that an idle connection costs some ten KiB, and that what asyncio keeps for reading follows what has been read.
# It matters here, since an operator that starts a thousand jobs at once has sixty connections to its API server open: 16 MiB of its 95. The class's attribute
# max_size is the only handle, and no documented one.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check aiohttp==3.14.3
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2> /dev/null

cat > serve.py <<'PY'
import ssl

from aiohttp import web


async def hold(request):
    return web.Response(text="ok")

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("cert.pem", "key.pem")
app = web.Application()
app.router.add_get("/", hold)
web.run_app(app, host="127.0.0.1", port=29681, ssl_context=context, print=None)
PY

cat > ask.py <<'PY'
import asyncio
import gc
import platform
import ssl
import sys
import tracemalloc

import aiohttp

COUNT = 20


async def kept(context):
    """Return the bytes that tracemalloc sees for each of some connections that have answered once and are idle."""
    connector = aiohttp.TCPConnector(limit=0, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        async def once():
            async with session.get("https://localhost:29681/") as answer:
                return await answer.text()
        await once()
        gc.collect()
        before = tracemalloc.take_snapshot()
        await asyncio.gather(*(once() for _ in range(COUNT + 1)))
        gc.collect()
        after = tracemalloc.take_snapshot().compare_to(before, "filename")
        by_file = {one.traceback[0].filename.rpartition("/")[2]: one.size_diff / COUNT / 1024 for one in after}
        return sum(by_file.values()), by_file.get("sslproto.py", 0.0)


async def main():
    for attempt in range(100):
        try:
            context = ssl.create_default_context(cafile="cert.pem")
            async with aiohttp.ClientSession() as session, session.get("https://localhost:29681/", ssl=context):
                break
        except aiohttp.ClientError:
            await asyncio.sleep(0.1)
    tracemalloc.start()
    whole, of_asyncio = await kept(ssl.create_default_context(cafile="cert.pem"))
    print(f"Python {platform.python_version()}, aiohttp {aiohttp.__version__}: {whole:.0f} KiB for each idle connection, {of_asyncio:.0f} of them of asyncio/sslproto.py")
    assert of_asyncio > 256, "less than before"

asyncio.run(main())
PY
venv/bin/python serve.py &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
venv/bin/python ask.py
