using System.Text.Json;

namespace Fleet.OpenApi.Tests;

/// <summary>What the linter has no rules for: everything is described, and everything has an example.</summary>
public sealed class DocumentTests : IAsyncLifetime
{
    private JsonDocument _document = null!;

    public async ValueTask InitializeAsync() => _document = JsonDocument.Parse(await File.ReadAllTextAsync(Repository.Document));

    public ValueTask DisposeAsync()
    {
        _document.Dispose();
        return ValueTask.CompletedTask;
    }

    [Fact]
    public void EveryMemberAndParameter_IsDescribed()
    {
        var members =
            from schema in _document.RootElement.GetProperty("components").GetProperty("schemas").EnumerateObject()
            where schema.Value.TryGetProperty("properties", out _)
            from member in schema.Value.GetProperty("properties").EnumerateObject()
            where !IsDescribed(member.Value)
            select $"{schema.Name}.{member.Name}";
        var parameters =
            from operation in Operations()
            where operation.Value.TryGetProperty("parameters", out _)
            from parameter in operation.Value.GetProperty("parameters").EnumerateArray()
            where !IsDescribed(parameter)
            select $"{operation.Name} {parameter.GetProperty("name")}";
        Assert.Empty(members.Concat(parameters));
    }

    [Fact]
    public void EveryJsonBody_HasAnExample()
    {
        var without =
            from operation in Operations()
            from content in ContentsOf(operation.Value)
            from media in content.Content.EnumerateObject()
            where media.Name is "application/json" or "application/problem+json"
            where !media.Value.TryGetProperty("example", out _) && !media.Value.TryGetProperty("examples", out _)
            select $"{operation.Name} {content.Name}";
        Assert.Empty(without);
    }

    [Fact]
    public void EveryOperation_TellsItsFailuresAndItsSecurity()
    {
        foreach (var operation in Operations())
        {
            var statuses = operation.Value.GetProperty("responses").EnumerateObject().Select(response => response.Name).ToList();
            var isAnonymous = operation.Value.GetProperty("security").GetArrayLength() == 0;
            var takesBody = operation.Value.TryGetProperty("requestBody", out _);
            string[] expected =
            [
                "429", "500", .. isAnonymous ? [] : (string[])["401", "403"], .. takesBody ? (string[])["400", "408", "413", "415"] : [],
                .. operation.Name.StartsWith("get ", StringComparison.Ordinal) ? [] : (string[])["503"],
            ];
            Assert.True(expected.All(statuses.Contains), $"{operation.Name}: {string.Join(' ', expected.Except(statuses))} missing");
        }
    }

    private IEnumerable<(string Name, JsonElement Value)> Operations() =>
        from path in _document.RootElement.GetProperty("paths").EnumerateObject()
        from operation in path.Value.EnumerateObject()
        select ($"{operation.Name} {path.Name}", operation.Value);

    private static IEnumerable<(string Name, JsonElement Content)> ContentsOf(JsonElement operation)
    {
        if (operation.TryGetProperty("requestBody", out var body))
        {
            yield return ("request", body.GetProperty("content"));
        }

        foreach (var response in operation.GetProperty("responses").EnumerateObject())
        {
            if (response.Value.TryGetProperty("content", out var content))
            {
                yield return (response.Name, content);
            }
        }
    }

    private static bool IsDescribed(JsonElement element) =>
        element.TryGetProperty("description", out var text) && text.GetString() is { Length: >= 5 };
}
