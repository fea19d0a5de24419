#!/bin/sh
# How the models here were made: sh models/convert.sh CHECKPOINT_FOLDER OUTPUT_FOLDER
# The folder holds text, text-small, text-q4, image and audio.safetensors and a .json of
# constructor arguments beside each. Converting again gives the same bytes.
set -eu
from=$1 to=$2
data="720 MB, 39,785 whole documents: 45% English prose (public-domain books, textbooks), \
20% technical documentation, \
20% source code, 8% structured data (JSON, CSV, YAML, XML, SVG, logs, SQL), 7% other languages; \
from Debian packages and \
public repositories under free licences or in the public domain, some Creative Commons"
about="A byte-level MEGABYTE model of English text, documentation, code and data; \
patches of 4 bytes, context 8192 bytes"
for name in text text-small text-q4; do
    quant=q8 source="trained with lucidrains/MEGABYTE-pytorch 0.3.6"
    if [ $name = text-q4 ]; then quant=q4 source="$source, then fine-tuned for 4-bit weights"; fi
    tools/mbconvert "$from/$name.safetensors" -o "$to/$name.mb" --quant $quant -f -q --pad-id 256 \
        --name "$name" --licence "CC0-1.0" \
        --source "$source" \
        --training-data "$data" --description "$about"
done

# As the bytes of a tile were ordered in training: see models/README.md.
photos="4,600 tiles of 64x64 pixels from CID22 (CC BY-SA 4.0), GroceryStoreDataset (MIT), \
Debian wallpapers (CC BY-SA), budgie-backgrounds (CC0), dataset_buddha (CC BY 4.0)"
tools/mbconvert "$from/image.safetensors" -o "$to/image.mb" -f -q --pad-id 256 \
    --name image --licence "CC-BY-SA-4.0" --training-data "$photos" \
    --source "trained with lucidrains/MEGABYTE-pytorch 0.3.6" \
    --description "A MEGABYTE model of photographs: tiles of 64x64 pixels, patches of 2x2 pixels" \
    --image-tile 64x64 --image-patch 2x2 --image-channels 3 --image-colour green-difference \
    --image-scan patch

sounds="51.8 MB of 8 kHz G.711 mu-law: Asterisk prompts (CC BY-SA 3.0), fillets-ng (GPL-2+), \
free-spoken-digit-dataset (CC BY-SA 4.0), sonic-pi samples (CC0), moh-opsound (CC BY-SA 3.0)"
tools/mbconvert "$from/audio.safetensors" -o "$to/audio.mb" -f -q --pad-id 256 \
    --name audio --licence "CC-BY-SA-4.0" --training-data "$sounds" \
    --source "trained with lucidrains/MEGABYTE-pytorch 0.3.6" \
    --description "A MEGABYTE model of speech and music: G.711 mu-law bytes, patches of 4 samples" \
    --audio "mu-law 8000 Hz"
