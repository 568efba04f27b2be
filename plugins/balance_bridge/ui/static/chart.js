// Draws the balance over time. Numbers become floats here, for pixels only: the table beside it has the exact digits.
"use strict";
(() => {
  const place = document.getElementById("chart");
  if (!place || !window.uPlot) return;
  const { asset, at, balance, delivered } = JSON.parse(place.dataset.chart);
  const values = balance.map(Number);
  const colour = () => getComputedStyle(document.documentElement).getPropertyValue("--link").trim();
  const text = () => getComputedStyle(document.documentElement).getPropertyValue("--text").trim();
  const grid = () => getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
  // Hours of a day, not of its halves; the days in the order of the table.
  const times = [
    [86400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
    [3600, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{YYYY}-{MM}-{DD}", null, null, null, 1],
    [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{YYYY}-{MM}-{DD}", null, null, null, 1],
    [1, "{HH}:{mm}:{ss}", "\n{YYYY}-{MM}-{DD}", null, "\n{YYYY}-{MM}-{DD}", null, null, null, 1],
  ];
  const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
  const options = {
    width: place.clientWidth,
    height: 288,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { x: { time: true } },
    axes: [{ ...axis, values: times }, { ...axis, size: 90 }],
    series: [
      { label: "UTC", value: "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" },
      { label: asset, stroke: colour, width: 1.5, paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } },
      { label: "delivered", stroke: colour, paths: () => null, points: { show: true, size: 8, fill: colour } },
    ],
  };
  const data = [at, values, values.map((value, place) => (delivered[place] ? value : null))];
  const chart = new uPlot(options, data, place);
  new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height: 288 })).observe(place);
  new MutationObserver(() => chart.redraw()).observe(document.documentElement, { attributes: true });
})();
