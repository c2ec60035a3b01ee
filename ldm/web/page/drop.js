() => {
  // A picture that is dropped where nothing waits for one is read for its settings.
  const files = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file");
  const taken = (event) => event.target.closest?.("input[type=file], .upload-container, [data-testid=image], [aria-dropeffect], button.flex, canvas");
  document.addEventListener("dragover", (event) => { if (files(event) && !taken(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!files(event) || taken(event)) return;
    event.preventDefault();
    const input = document.querySelector("#ldm-dropped input[type=file]");
    if (!input || !event.dataTransfer.files.length) return;
    const one = new DataTransfer();
    one.items.add(event.dataTransfer.files[0]);
    input.files = one.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  // A picture that can be opened is a button without a name for screen readers: it gets that of its frame.
  const named = () => document.querySelectorAll("button:has(> .image-frame):not([aria-label])").forEach((button) => {
    const label = button.closest(".block")?.querySelector("[data-testid=block-label]")?.textContent.trim();
    if (label) button.setAttribute("aria-label", label);
  });
  new MutationObserver(named).observe(document.body, { childList: true, subtree: true });
}
