#!/usr/bin/env bash
# What one GPU gives: tests, speed, sampling, three trained models. At most eight minutes, and one table at the end.
#
#   benchmarks/gpu.sh            on a machine with a GPU and genlab's requirements; MNIST is read from GENLAB_DATA
#   benchmarks/gpu.sh --brief    sampling with CUDA graphs alone, its tests and its speed, in 100 seconds
#   benchmarks/gpu.sh --quick    the same on the CPU, on small images, in a few minutes; the figures mean nothing
#   benchmarks/gpu.sh pack       prepares the folder .gpu/: MNIST from GENLAB_DATA, and Hydra's packages as wheels
#
# A machine without network needs torch, torchvision, numpy, scikit-learn, matplotlib, pillow, pyyaml, tqdm, packaging
# and pytest with pytest-xdist; the rest comes from .gpu/, which is carried there with the checkout. Then, in its root:
#
#   PYTHONUNBUFFERED=1 bash benchmarks/gpu.sh
#
# The table is also written to $OUT/gpu.md, with logs and pictures beside it; without OUT to outputs/gpu/.
set -euo pipefail
cd "$(dirname "$0")/.."
packed=".gpu"

if [ "${1:-}" = pack ]; then
    rm -rf "$packed" && mkdir -p "$packed/wheels" "$packed/data/MNIST/raw"
    cp "${GENLAB_DATA:?set GENLAB_DATA to the folder that holds MNIST/raw/}"/MNIST/raw/*.gz "$packed/data/MNIST/raw/"
    chmod -R u+w "$packed"
    python3 -m pip download --quiet --no-deps --dest "$packed/wheels" "hydra-core>=1.3.8,<1.4" "omegaconf>=2.3,<2.4"
    python3 -m pip wheel --quiet --no-deps --wheel-dir "$packed/wheels" antlr4-python3-runtime==4.9.3
    du -sh "$packed"
    exit
fi

for wheel in "$packed"/wheels/*.whl; do # pure Python, so that a wheel can be imported as it is once unpacked
    [ -e "$wheel" ] || continue
    python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])' "$wheel" "$packed/site"
done
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}:$PWD/$packed/site"
[ ! -d "$packed/data" ] || export GENLAB_DATA="$PWD/$packed/data" GENLAB_TEST_DATA="$PWD/$packed/data"
exec python3 benchmarks/gpu.py "$@"
