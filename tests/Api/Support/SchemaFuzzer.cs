using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Fleet.Api.Tests.Support;

/// <summary>Requests made from the OpenAPI document: mostly right, then spoilt somewhere. The same seed makes the same requests.</summary>
public sealed class SchemaFuzzer(JsonElement document, int seed)
{
    private static readonly string[] Ids = ["vm-1", "vm-2", "host-a", "host-b", "m-1", "0123456789abcdef"];

    private static readonly string[] Texts =
    [
        "", " ", "a", "-", "..", "../../etc/passwd", "null", "true", "0", "-1", "1e400", "'; DROP TABLE vms; --", "%00", "\u0000", "\r\nX-Evil: 1", "\uFEFF",
        "\U0001F4A9", "e\u0301", "\u202E", "0x0", "0xffffffffffffffff", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "1s", "60s", "3650d", "99999999999d",
        "${jndi:ldap://x}", "<script>", "{{7*7}}", new('a', 64), new('b', 65), new('c', 4000), new('\u00e9', 3000), "read", "admin", "agent", "handoff", "srar",
    ];

    private static readonly string[] Numbers =
    [
        "0", "1", "-1", "12", "21", "30", "63", "4096", "2147483647", "2147483648", "-2147483649", "9007199254740993", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "1.5", "1e3", "1e400", "-0", "1E-400", "99999999999999999999999999999999999999",
    ];

    private static readonly string[] Wrong = ["null", "true", "[]", "{}", "\"x\"", "1", "[[]]", "{\"a\":1}"];

    private readonly Random _random = new(seed);

    public HttpRequestMessage Make(ApiOperation operation, string host)
    {
        var request = new HttpRequestMessage(new HttpMethod(operation.Method), PathOf(operation, host) + QueryOf(operation));
        if (Chance(10))
        {
            request.Headers.TryAddWithoutValidation("If-Match", Pick("*", "\"1\"", "1", "\"", "W/\"1\"", "\"1\", \"2\"", new string('"', 500)));
        }

        if (operation.Definition.TryGetProperty("requestBody", out var body))
        {
            request.Content = BodyOf(body.GetProperty("content").GetProperty("application/json").GetProperty("schema"));
        }

        return request;
    }

    private ByteArrayContent BodyOf(JsonElement schema)
    {
        var text = new StringBuilder();
        Write(text, schema, depth: 0);
        var json = text.ToString();
        var bytes = _random.Next(20) switch
        {
            0 => Encoding.UTF8.GetBytes(json[..(json.Length / 2)]),
            1 => Encoding.UTF8.GetBytes(json + Pick("x", "{}", "\0", ",")),
            2 => Encoding.Unicode.GetBytes(json),
            3 => [0xEF, 0xBB, 0xBF, .. Encoding.UTF8.GetBytes(json)],
            4 => [.. Encoding.UTF8.GetBytes(json), 0xC3, 0x28, 0xFF],
            5 => Encoding.UTF8.GetBytes(new string('[', _random.Next(1, 20_000))),
            6 => Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat("{\"a\":", _random.Next(1, 5000)))),
            7 => Encoding.UTF8.GetBytes($"{{\"{new string('k', _random.Next(70_000))}\":1}}"),
            _ => Encoding.UTF8.GetBytes(json),
        };
        var content = new ByteArrayContent(bytes);
        content.Headers.TryAddWithoutValidation(
            "Content-Type",
            _random.Next(20) switch
            {
                0 => Pick("text/plain", "application/xml", "application/json; charset=utf-16", "application/json; charset=nonsense", "multipart/form-data", "x", "*/*"),
                _ => "application/json",
            });
        if (Chance(30))
        {
            content.Headers.TryAddWithoutValidation("Content-Encoding", Pick("gzip", "br", "identity", "nonsense"));
        }

        return content;
    }

    private void Write(StringBuilder text, JsonElement schema, int depth)
    {
        if (depth > 8 || Chance(25))
        {
            text.Append(Pick(Wrong));
            return;
        }

        schema = Resolve(schema);
        switch (TypeOf(schema))
        {
            case "object":
                WriteObject(text, schema, depth);
                break;
            case "array":
                var length = Chance(30) ? 300 : _random.Next(4);
                text.Append('[').AppendJoin(',', Enumerable.Range(0, length).Select(_ => Part(schema.TryGetProperty("items", out var items) ? items : default, depth))).Append(']');
                break;
            case "integer" or "number":
                text.Append(Chance(3) ? Pick(Numbers) : _random.Next(20_000).ToString(CultureInfo.InvariantCulture));
                break;
            case "boolean":
                text.Append(Pick("true", "false"));
                break;
            default:
                text.Append(JsonSerializer.Serialize(Chance(2) ? Pick(Ids) : Chance(4) ? Text() : Pick("0x0", "1h", "2026-01-01T00:00:00Z", "reason")));
                break;
        }
    }

    private void WriteObject(StringBuilder text, JsonElement schema, int depth)
    {
        var members = new List<string>();
        if (schema.TryGetProperty("properties", out var properties))
        {
            foreach (var property in properties.EnumerateObject().Where(_ => !Chance(20)))
            {
                var name = Chance(40) ? property.Name.ToUpperInvariant() : property.Name;
                members.Add($"{JsonSerializer.Serialize(name)}:{Part(property.Value, depth)}");
                if (Chance(40))
                {
                    members.Add(members[^1]);
                }
            }
        }
        else
        {
            members.AddRange(Enumerable.Range(0, _random.Next(4)).Select(_ => $"{JsonSerializer.Serialize(Text())}:{JsonSerializer.Serialize(Text())}"));
        }

        if (Chance(20))
        {
            members.Add($"{JsonSerializer.Serialize(Pick("__proto__", "$type", "$ref", "", Text()))}:{Pick(Wrong)}");
        }

        text.Append('{').AppendJoin(',', members).Append('}');
    }

    private string Part(JsonElement schema, int depth)
    {
        var part = new StringBuilder();
        Write(part, schema, depth + 1);
        return part.ToString();
    }

    private JsonElement Resolve(JsonElement schema)
    {
        while (schema.ValueKind == JsonValueKind.Object)
        {
            if (schema.TryGetProperty("$ref", out var reference))
            {
                schema = document.GetProperty("components").GetProperty("schemas").GetProperty(reference.GetString()!.Split('/')[^1]);
            }
            else if (schema.TryGetProperty("oneOf", out var either))
            {
                schema = either.EnumerateArray().Last();
            }
            else
            {
                break;
            }
        }

        return schema;
    }

    private static string? TypeOf(JsonElement schema) =>
        schema.ValueKind != JsonValueKind.Object || !schema.TryGetProperty("type", out var type) ? null
        : type.ValueKind == JsonValueKind.Array ? type.EnumerateArray().Select(item => item.GetString()).FirstOrDefault(name => name != "null")
        : type.GetString();

    private string PathOf(ApiOperation operation, string host)
    {
        var parts = operation.Path.Split('/').Select(part => part switch
        {
            // An agent's own host stays right: everything else would be refused before it is looked at.
            "{host}" when operation.IsAgents => host,
            "{frame}" => Chance(2) ? _random.Next(20_000).ToString(CultureInfo.InvariantCulture) : Escape(Pick(Numbers)),
            ['{', ..] => Chance(2) ? Pick(Ids) : Escape(Text() is { Length: > 0 } text ? text : "x"),
            _ => part,
        });
        return string.Join('/', parts);
    }

    private string QueryOf(ApiOperation operation)
    {
        if (!operation.Definition.TryGetProperty("parameters", out var parameters))
        {
            return Chance(10) ? $"?{Escape(Text())}={Escape(Text())}" : string.Empty;
        }

        var query = from parameter in parameters.EnumerateArray()
                    where parameter.GetProperty("in").GetString() == "query" && Chance(2)
                    let name = parameter.GetProperty("name").GetString()!
                    select $"{name}={Escape(name == "wait" ? Pick("0s", "1s", "x", "61s") : Chance(2) ? Pick(Numbers) : Text())}{(Chance(10) ? $"&{name}=1" : string.Empty)}";
        var text = string.Join('&', query);
        return text.Length > 0 ? "?" + text : text;
    }

    private string Text() => Texts[_random.Next(Texts.Length)];

    private string Pick(params string[] choices) => choices[_random.Next(choices.Length)];

    private bool Chance(int oneIn) => _random.Next(oneIn) == 0;

    private static string Escape(string text) => text == ".." ? "%2e%2e" : Uri.EscapeDataString(text.Length > 1000 ? text[..1000] : text);
}
