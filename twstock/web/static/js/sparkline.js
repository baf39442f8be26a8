/** A small line of numbers on a canvas. */

const INSET = 2;
const LINE_PX = 1.25;
/** Fewer numbers are drawn with the steps of so many: two points do not make a trend. */
const NUMBERS_MIN = 16;

/**
 * Draw the numbers as steps, each held until the next, and a dot at the newest, in the element's
 * colours (`color` for the line, `--spark-fill` below it).
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} numbers
 */
export function drawSparkline(canvas, numbers) {
  const [width, height] = fitted(canvas);
  const brush = canvas.getContext("2d");
  brush.clearRect(0, 0, canvas.width, canvas.height);
  if (!width || !numbers.length) return;
  const scale = canvas.width / width;
  brush.setTransform(scale, 0, 0, scale, 0, 0);
  const style = getComputedStyle(canvas);
  const right = width - 2 * INSET;
  const points = placed(numbers, right, height);
  brush.fillStyle = style.getPropertyValue("--spark-fill");
  brush.strokeStyle = style.color;
  brush.lineWidth = LINE_PX;
  outline(brush, points, right);
  brush.stroke();
  brush.lineTo(right, height);
  brush.lineTo(0, height);
  brush.fill();
  brush.beginPath();
  brush.fillStyle = style.color;
  brush.arc(right, points.at(-1)[1], INSET, 0, 2 * Math.PI);
  brush.fill();
  brush.setTransform(1, 0, 0, 1, 0, 0);
}

/** Make the canvas as fine as the screen; its size in CSS pixels. */
function fitted(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  const [fine, tall] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== fine) canvas.width = fine;
  if (canvas.height !== tall) canvas.height = tall;
  return [width, height];
}

/** Where each number's step begins; the first is taken to have been so since the left edge. */
function placed(numbers, right, height) {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const stretch = high === low ? 0 : (height - 2 * INSET) / (high - low);
  const y = (value) => (stretch ? height - INSET - (value - low) * stretch : height / 2);
  const room = Math.max(numbers.length, NUMBERS_MIN);
  const step = right / room;
  return numbers.map((value, i) => [i && (room - numbers.length + i) * step, y(value)]);
}

function outline(brush, points, right) {
  brush.beginPath();
  let y = points[0][1];
  brush.moveTo(0, y);
  for (const [x, nextY] of points.slice(1)) {
    brush.lineTo(x, y);
    brush.lineTo(x, nextY);
    y = nextY;
  }
  brush.lineTo(right, y);
}
