/* Charts that follow the part of a page which is fetched again.
 *
 * <div data-chart-for="days-chart" data-chart="{…}" hidden> inside a polled part holds the newest numbers for the
 * chart in the element #days-chart, drawn by unfold's component outside of it: so nothing is drawn anew but what moved.
 */
"use strict";

(function () {
  const coloured = /^var\((--[\w-]+)\)$/;

  function resolve(colour) {
    const name = typeof colour === "string" && coloured.exec(colour);
    return name ? getComputedStyle(document.documentElement).getPropertyValue(name[1]).trim() : colour;
  }

  function follow(root) {
    root.querySelectorAll("[data-chart-for]").forEach(function (news) {
      const canvas = document.querySelector("#" + news.dataset.chartFor + " canvas");
      const chart = canvas && window.Chart && window.Chart.getChart(canvas);
      if (!chart || news.dataset.chart === canvas.dataset.value) return;
      canvas.dataset.value = news.dataset.chart;
      const data = JSON.parse(news.dataset.chart);
      chart.data.labels = data.labels;
      data.datasets.forEach(function (series, place) {
        if (chart.data.datasets[place]) chart.data.datasets[place].data = series.data;
      });
      chart.update("none");
    });
  }

  function recolour() {
    document.querySelectorAll("canvas.chart").forEach(function (canvas) {
      const chart = window.Chart && window.Chart.getChart(canvas);
      if (!chart || !canvas.dataset.value) return;
      JSON.parse(canvas.dataset.value).datasets.forEach(function (series, place) {
        const drawn = chart.data.datasets[place];
        if (series.backgroundColor) drawn.backgroundColor = resolve(series.backgroundColor);
        if (series.borderColor) drawn.borderColor = resolve(series.borderColor);
      });
      chart.update("none");
    });
  }

  document.addEventListener("fl:shown", function (event) { follow(event.target); });
  window.addEventListener("load", function () {
    new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["class"] });
  });
})();
