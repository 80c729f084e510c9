// Fetches the page anew every few seconds and puts its main part in the place of the old one, as long as somebody looks.
"use strict";

(function () {
  const seconds = () => Number(document.getElementById("main").dataset.refresh || 0);

  function busy() {
    const selection = document.getSelection();
    const typing = document.activeElement && document.activeElement.matches("input");
    return document.hidden || typing || (selection && !selection.isCollapsed);
  }

  async function refresh() {
    if (seconds() && !busy()) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (answer.ok && !busy()) {
          replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
        }
      } catch {
        // The server is away for the moment; the next round tells.
      }
    }
    setTimeout(refresh, (seconds() || 10) * 1000);
  }

  function replace(fresh) {
    const before = document.getElementById("main");
    const after = fresh.getElementById("main");
    if (!after || before.innerHTML === after.innerHTML) return;
    for (const details of before.querySelectorAll("details[id]")) {
      const twin = after.querySelector("#" + details.id);
      if (twin) twin.open = details.open;
    }
    const scrolled = [...before.querySelectorAll(".wide")].map((box) => box.scrollLeft);
    before.replaceWith(document.adoptNode(after));
    after.querySelectorAll(".wide").forEach((box, index) => { box.scrollLeft = scrolled[index] || 0; });
    document.querySelector("footer").replaceWith(document.adoptNode(fresh.querySelector("footer")));
  }

  if (seconds()) setTimeout(refresh, seconds() * 1000);
})();
