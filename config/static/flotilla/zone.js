/* Tells the server in which time zone this person lives, so that pages show times as their clock does. */
"use strict";

(function () {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (!zone || !/^[\w+\/-]{1,64}$/.test(zone)) return;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = "flotilla_zone=" + zone + "; Path=/admin; Max-Age=31536000; SameSite=Lax" + secure;
})();
