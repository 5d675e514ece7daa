// MLflow's clients print links like http://HOST:PORT/#/experiments/1: here its pages are below /mlflow/.
// Kubeflow Pipelines' clients print `#/runs/details/ID` and the like: a run's page is ours.
if (location.pathname === "/" && location.hash.startsWith("#/")) {
  const kfp = location.hash.match(/^#\/(runs|experiments|pipelines)\/details\/([^/?]+)/);
  location.replace(kfp ? (kfp[1] === "runs" ? "/runs/" + kfp[2] : "/runs") : "/mlflow/" + location.hash);
}

// On a phone the navigation is one line that is pushed sideways: show where we are.
document.querySelector("nav .on")?.scrollIntoView({ block: "nearest", inline: "center" });

// Keep an open page fresh: every few seconds fetch it again and put the new <main> in place of the old one.
// Nothing happens while the tab is hidden, text is selected, or a <details> is open.
(() => {
  const again = async () => {
    const busy = document.hidden || String(getSelection()) || document.querySelector("details[open]");
    if (!busy) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (answer.ok) {
          const next = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
          const main = document.querySelector("main");
          if (next && next.innerHTML !== main.innerHTML) main.replaceWith(next);
        }
      } catch { /* the control process is restarting: the next round finds it */ }
    }
    setTimeout(again, 3000);
  };
  setTimeout(again, 3000);
})();
