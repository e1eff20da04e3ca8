"""The page: settings -> Workstation -> ui.build -> launch."""

from __future__ import annotations

import sys

from acoustic.errors import AcousticError
from acoustic.settings import Settings, prepare_process


def main() -> int:
    try:
        settings = Settings.load()
        prepare_process(settings)
        from acoustic import ui
        from acoustic.workstation import Workstation
        from acoustic.workstation.settling import settle

        with Workstation(settings) as workstation:
            page = ui.build(workstation)
            _, url, _ = page.launch(**ui.launch_arguments(settings), prevent_thread_lock=True)
            sys.stdout.write(f"AcousticSense is ready: {url}\n")
            if ui.is_open(settings):
                sys.stdout.write("Who can reach this machine can use it: there is no password.\n")
            sys.stdout.flush()
            workstation.classifier.warm_up()  # while the person looks for a song
            settle(workstation)
            page.block_thread()
    except AcousticError as error:
        sys.stderr.write(f"error: {error.message}\n{error.hint}\n")
        return 2
    except KeyboardInterrupt:  # Ctrl-C while the first start still compiles: gradio catches only a later one
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
