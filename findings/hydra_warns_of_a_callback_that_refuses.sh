#!/usr/bin/env bash
# Question:  A callback of Hydra's looks at a sweep before it begins (a directory that another one uses, a plan that cannot be
#            written) and raises. Does the sweep end?
# Versions:  hydra-core 1.3.8, omegaconf 2.3.1; CPython 3.11.
# Behaviour: No. Hydra makes a warning of every Exception in a callback, at its start as at its end: all jobs run, and the exit
#            status is 0. SystemExit is no Exception, passes, and ends the process before the first job.
# Users:     a sweep whose directory could not be claimed ran without its table, and with status 0 though jobs had failed. This
#            project's callbacks end the process themselves.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target tools \
  hydra-core==1.3.8 omegaconf==2.3.1

cat > app.py <<'PY'
import os

import hydra
from hydra.experimental.callback import Callback


class Refuses(Callback):
    def on_multirun_start(self, config, **kwargs):
        if os.environ["RAISES"] == "RuntimeError":
            raise RuntimeError("not here")
        raise SystemExit(2)


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    print("job", config.a)


if __name__ == "__main__":
    main()
PY
cat > config.yaml <<'YAML'
a: 0
hydra: {callbacks: {refuses: {_target_: __main__.Refuses}}, hydra_logging: {root: {level: ERROR}}}
YAML
for raises in RuntimeError SystemExit; do
  status=0
  RAISES=$raises PYTHONPATH=tools HYDRA_FULL_ERROR=1 python3 app.py -m a=1,2 > said 2> complained || status=$?
  echo "$raises: $(tr '\n' ',' < said) exit status $status, warnings: $(grep -c 'UserWarning: Callback Refuses' complained || true)"
done | tee seen
diff seen - <<'SEEN'
RuntimeError: job 1,job 2, exit status 0, warnings: 1
SystemExit:  exit status 2, warnings: 0
SEEN
echo "as described"
