() => {
  const canvas = document.querySelector("#sheet canvas");
  const { columns, scale, gap, left, offset, shape, ...rest } = canvas.dataset;
  const [channels, height, width] = shape.split(",").map(Number);
  const wide = channels === 3 ? width : channels * width;
  const [pitchX, pitchY] = [wide * scale + Number(gap), height * scale + Number(gap)];
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const style = getComputedStyle(document.documentElement);
  const on = parseInt(style.getPropertyValue("--on").trim().slice(1, 3), 16);
  const skipped = Number(offset) ? 1 : 0; // a row that is not whole
  const rows = Math.floor((canvas.height - gap + Number(offset)) / pitchY);
  const first = BigInt(rest.first) + BigInt(skipped * columns);
  let pixels = "";
  for (let row = skipped; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      if (first + BigInt((row - skipped) * columns + column) >= 2n ** 63n - 1n) continue;
      for (let channel = 0; channel < channels; channel++)
        for (let y = 0; y < height; y++)
          for (let x = 0; x < width; x++) {
            const across = channels === 3 ? x : channel * width + x;
            const px = Number(left) + column * pitchX + Math.floor((across + 0.5) * scale);
            const py = Number(gap) + row * pitchY - offset + Math.floor((y + 0.5) * scale);
            const at = 4 * (py * canvas.width + px);
            pixels += Number(channels === 3 ? data[at + channel] === 255 : data[at] === on);
          }
    }
  return { first: String(first), pixels, size: channels * height * width };
}
