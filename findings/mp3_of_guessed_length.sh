#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile 1.2.2): of an MP3 with a varying bit rate and no Xing header it reads as much as it guesses from the
# first frame, and says nothing. Here four seconds that grow louder, whose header frame is taken away as a cut stream has none,
# become less than one. With fewer frames than the header says (a file that is cut off) it returns what there is, again without
# a word, while soundfile.info still tells the whole length; a FLAC that is cut off raises an error.
#
# One would guess that reading a whole file gives all of its sound, or an error. It matters here, since clips are decoded by it:
# the documents say what becomes of such files, and an MP3's length is taken for a guess.
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
rate, seconds = 48_000, 4
time = np.arange(rate * seconds) / rate
soundfile.write("whole.mp3", np.sin(2 * np.pi * 440 * time) * time / seconds, rate, bitrate_mode="VARIABLE")
content = open("whole.mp3", "rb").read()
header = content.index(b"Xing")
second = content.index(b"\xff\xfb", header)
open("stream.mp3", "wb").write(content[second:])
open("cut.mp3", "wb").write(content[: len(content) // 2])
found = {}
for name in ("whole", "stream", "cut"):
    info, (values, _) = soundfile.info(f"{name}.mp3"), soundfile.read(f"{name}.mp3")
    found[name] = info.frames / rate, len(values) / rate
    print(f"{name}: info says {found[name][0]:.2f} seconds, read gives {found[name][1]:.2f}")
assert found["whole"] == (4, 4)
assert found["stream"][1] < 2, "the whole stream is read now"
assert found["cut"][0] == 4 and found["cut"][1] < 3, "a file that is cut off is told now"
PY
venv/bin/python try.py 2> told
