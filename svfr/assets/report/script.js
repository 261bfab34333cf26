// One button plays or pauses all clips of a card, from the same moment.
for (const button of document.querySelectorAll("button[data-play]")) {
  button.addEventListener("click", () => {
    const clips = [...button.closest(".card").querySelectorAll("video")];
    const start = clips.every((clip) => clip.paused);
    for (const clip of clips) {
      if (start) { clip.currentTime = 0; clip.play(); } else { clip.pause(); }
    }
    button.textContent = start ? "pause" : "play together";
  });
}
