#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2): FLAC whose header does not say how long it is, as every encoder writes it into a pipe, is
# called 2^63 - 1 frames long, and reading it to its end raises an error ("psf_fseek() failed") although each sample of it can be
# read: after a part soundfile seeks to where it already is, and libsndfile cannot seek there at the end. Parts before the end are
# read without a word. The format allows an unknown length (0 in STREAMINFO, RFC 9639).
#
# One would guess that it is read until it ends, as by ffmpeg and flac. It matters here, since recordings that were streamed are
# whole files to people: they would be refused as broken, or, where a clip is cut before its end, read by chance.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check soundfile==0.14.0 numpy

cat > try.py <<'PY'
import numpy as np
import soundfile

print("libsndfile", soundfile.__libsndfile_version__)
rate = 16_000
soundfile.write("whole.flac", 0.5 * np.sin(np.arange(rate) / 6), rate)
content = bytearray(open("whole.flac", "rb").read())
content[21] &= 0xF0  # the number of samples and their checksum, which are known at the end alone
content[22:42] = bytes(20)
open("stream.flac", "wb").write(content)
with soundfile.SoundFile("stream.flac") as stream:
    print("frames by the header:", stream.frames)
    assert stream.frames > 2**62, "the length is told in another way now"
    half = stream.read(rate // 2)
whole, _ = soundfile.read("whole.flac")
assert np.array_equal(half, whole[: rate // 2])
print("half of it is read")
try:
    with soundfile.SoundFile("stream.flac") as stream:
        found = stream.read(2 * rate)
except soundfile.LibsndfileError as error:
    print("all of it:", error)
else:
    raise SystemExit(f"{len(found)} of {rate} frames are read now")
PY
venv/bin/python try.py
