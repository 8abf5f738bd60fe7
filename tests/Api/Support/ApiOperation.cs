using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;

namespace Fleet.Api.Tests.Support;

/// <summary>An operation of the OpenAPI document, as the running server publishes it.</summary>
/// <param name="Scopes">The scopes that it declares to need, all of them; null when it declares no authentication.</param>
public sealed record ApiOperation(string Method, string Path, string Id, IReadOnlyList<string>? Scopes, JsonElement Definition)
{
    public bool IsAgents => Scopes is ["agent"];

    public bool IsMutation => Method is not "GET";

    public static async Task<IReadOnlyList<ApiOperation>> ReadAllAsync(ApiHost api)
    {
        using var document = JsonDocument.Parse(await api.Client(null).GetStringAsync(new Uri("/openapi/v1.json", UriKind.Relative)));
        return
        [
            .. from path in document.RootElement.GetProperty("paths").EnumerateObject()
               from operation in path.Value.EnumerateObject()
               select new ApiOperation(
                   operation.Name.ToUpperInvariant(), path.Name, operation.Value.GetProperty("operationId").GetString()!, ScopesOf(operation.Value), operation.Value.Clone()),
        ];
    }

    /// <summary>The path with its ids filled in.</summary>
    public string PathFor(string host) => Path
        .Replace("{host}", host, StringComparison.Ordinal).Replace("{vm}", "vm-1", StringComparison.Ordinal)
        .Replace("{migration}", "m-1", StringComparison.Ordinal).Replace("{frame}", "1", StringComparison.Ordinal)
        .Replace("{token}", "0123456789abcdef", StringComparison.Ordinal);

    /// <summary>Sent with the least there is: who may call it is decided before anybody reads what it says.</summary>
    public Task<HttpResponseMessage> SendAsync(HttpClient client, string host)
    {
        var request = new HttpRequestMessage(new HttpMethod(Method), PathFor(host));
        if (Definition.TryGetProperty("requestBody", out _))
        {
            request.Content = new ByteArrayContent(Encoding.UTF8.GetBytes("{}")) { Headers = { ContentType = new MediaTypeHeaderValue("application/json") } };
        }

        return client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
    }

    public override string ToString() => $"{Method} {Path}";

    private static string[]? ScopesOf(JsonElement operation) =>
        operation.TryGetProperty("security", out var security) && security.GetArrayLength() > 0
            ? [.. security[0].GetProperty("bearer").EnumerateArray().Select(scope => scope.GetString()!)]
            : null;
}
