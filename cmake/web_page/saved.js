// A line in the corner of llama.cpp's page: what the budget has saved in the slots that hold a text. Added to the page
// when it is built; the page's own files stay as they are.
(() => {
  const MILLISECONDS = 3000;
  const line = document.createElement("output");
  line.id = "triattention-saved";
  line.style.cssText =
    "position:fixed;right:.75rem;bottom:.25rem;z-index:50;font:11px system-ui,sans-serif;opacity:.65;pointer-events:none";
  const count = new Intl.NumberFormat("en");

  // The key that the page's settings hold, if the server asks for one.
  const headers = () => {
    try {
      const key = JSON.parse(localStorage.getItem("LlamaUi.config") || "{}").apiKey;
      return key ? { Authorization: `Bearer ${key}` } : {};
    } catch {
      return {};
    }
  };

  const tell = (slots) =>
    slots
      .map((slot) => slot.triattention)
      .filter((kept) => kept && kept.resident_keys > 0)
      .map((kept) => {
        const all = kept.resident_keys + kept.evicted_tokens;
        const saved = (kept.saved_bytes / 2 ** 20).toFixed(1);
        return `kept ${count.format(kept.resident_keys)} of ${count.format(all)} keys; ${saved} MiB saved`;
      })
      .join(" · ");

  const show = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch("./slots", { headers: headers() });
        line.textContent = answer.ok ? tell(await answer.json()) : "";
      } catch {
        line.textContent = "";
      }
    }
    setTimeout(show, MILLISECONDS);
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.body.append(line);
    show();
  });
})();
