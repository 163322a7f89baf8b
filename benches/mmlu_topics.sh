#!/usr/bin/env bash
# MMLU subjects as topics, every row held out once (benches/runs/2026-11-25-mmlu-topics.md):
#
#   benches/mmlu_topics.sh MMLU_FOLDER OUT [ENCODER] [TOPIC...]
#
# MMLU_FOLDER has test/*_test.csv and dev/*_dev.csv. ENCODER is `hashed` or, by default,
# `hashed+models/encoder-int8` (`proxy-train fetch-encoder --int8 --out models/encoder-int8`). Without
# topics: all three. A topic's neighbours are hard non-targets: reported, and never trained on.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
fi
data=$1 out=$2 encoder=${3:-hashed+models/encoder-int8}
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- virology computer_security college_chemistry

neighbours() {
    case $1 in
        virology | college_chemistry) echo college_biology high_school_biology ;;
        computer_security) echo machine_learning ;;
        *) echo "$0: the neighbours of $1 are not known" >&2 && return 2 ;;
    esac
}

train=(cargo run --release --quiet --bin proxy-train --)
[ -z "${PROXY_TRAIN:-}" ] || train=("$PROXY_TRAIN")

for topic in "$@"; do
    near=$(neighbours "$topic")
    rows=(--forget "$data/test/${topic}_test.csv" --forget "$data/dev/${topic}_dev.csv")
    for name in $near; do
        rows+=(--hard "$data/test/${name}_test.csv")
    done
    for file in "$data"/test/*.csv "$data"/dev/*.csv; do
        subject=$(basename "$file" .csv)
        subject=${subject%_test}
        subject=${subject%_dev}
        case " $topic $near " in
            *" $subject "*) ;;
            *) rows+=(--retain "$file") ;;
        esac
    done
    echo "## $topic, $encoder"
    "${train[@]}" classifier "${rows[@]}" --encoder "$encoder" --false-positives 0.02 \
        --topic "$topic" --folds 5 --out "$out/$topic"
done
