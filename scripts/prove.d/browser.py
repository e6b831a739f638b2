"""Pages in headless Chromium, without a network."""

import os, shutil, subprocess

from lab import output


def browser():
    """Chromium of Debian."""
    if not shutil.which("chromium"):
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
        subprocess.run(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", "chromium"],
                       check=True, env=env, stdout=subprocess.DEVNULL)
    return "chromium"


def opened(directory, page, *more, height=4000):
    """What Chromium prints of a page. What it writes stays in the directory."""
    return output("unshare", "-n", "env", "HOME=" + directory, browser(), "--headless", "--no-sandbox", "--disable-gpu",
                  "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1100,%d" % height,
                  "--user-data-dir=%s/profile" % directory, *more, "file://" + page, timeout=120)
