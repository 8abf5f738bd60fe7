using System.Reflection;
using System.Text.Json;

namespace Fleet.Api.Tests;

public sealed class OpenApiTests
{
    private static readonly string Root = typeof(OpenApiTests).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(item => item.Key == "Root").Value!;

    private static string Built => Path.Combine(Root, "src/Api/obj/openapi/fleet.json");

    private static string Committed => Path.Combine(Root, "openapi/v1.json");

    [Fact]
    public async Task Document_AsBuilt_IsTheCommittedOne()
    {
        var built = (await File.ReadAllTextAsync(Built)).TrimEnd().Split('\n');
        var committed = (await File.ReadAllTextAsync(Committed)).TrimEnd().Split('\n');
        var different = Enumerable.Range(0, Math.Max(built.Length, committed.Length))
            .FirstOrDefault(line => built.ElementAtOrDefault(line) != committed.ElementAtOrDefault(line), -1);

        Assert.True(different < 0, $"""
            The API's document differs from openapi/v1.json, first at line {different + 1}:
              committed: {committed.ElementAtOrDefault(different)}
              built:     {built.ElementAtOrDefault(different)}
            If the change is meant, refresh the committed one: cp src/Api/obj/openapi/fleet.json openapi/v1.json
            """);
    }

    [Fact]
    public async Task Document_DescribesEveryOperationItsProblemsAndItsAuthentication()
    {
        using var document = JsonDocument.Parse(await File.ReadAllTextAsync(Built));
        var root = document.RootElement;
        Assert.Equal("http", root.GetProperty("components").GetProperty("securitySchemes").GetProperty("bearer").GetProperty("type").GetString());
        foreach (var path in root.GetProperty("paths").EnumerateObject())
        {
            foreach (var operation in path.Value.EnumerateObject())
            {
                var name = $"{operation.Name} {path.Name}";
                Assert.True(operation.Value.TryGetProperty("summary", out _), $"{name} has no summary.");
                Assert.True(operation.Value.TryGetProperty("operationId", out _), $"{name} has no operation id.");
                Assert.True(operation.Value.GetProperty("responses").EnumerateObject().Any(response => response.Name[0] == '2'), $"{name} never succeeds.");
                if (path.Name.StartsWith("/v1/", StringComparison.Ordinal))
                {
                    Assert.True(operation.Value.GetProperty("responses").TryGetProperty("401", out _), $"{name} has no 401.");
                }
            }
        }
    }
}
