using System.Reflection;

namespace Fleet.OpenApi.Tests;

internal static class Repository
{
    public static readonly string Root = typeof(Repository).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(item => item.Key == "Root").Value!;

    public static string Document => Path.Combine(Root, "openapi/v1.json");
}
