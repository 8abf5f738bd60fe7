using Fleet.Api.Problems;
using Microsoft.Net.Http.Headers;

namespace Fleet.Api.Json;

/// <summary>JSON between systems is UTF-8 (RFC 8259, 8.1). The framework would recode other charsets, and fail on those it does not know.</summary>
public sealed class Utf8Only(RequestDelegate next)
{
    public Task InvokeAsync(HttpContext context) =>
        MediaTypeHeaderValue.TryParse(context.Request.ContentType, out var type)
        && type.Charset.HasValue
        && !string.Equals(HeaderUtilities.RemoveQuotes(type.Charset).Value, "utf-8", StringComparison.OrdinalIgnoreCase)
            ? new Problem(ProblemTypes.UnsupportedMediaType).WriteAsync(context)
            : next(context);
}
