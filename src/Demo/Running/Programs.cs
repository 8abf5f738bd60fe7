using System.Reflection;

namespace Fleet.Demo.Running;

/// <summary>Paths of the programs that were built together with this one.</summary>
public static class Programs
{
    public static string Api => PathOf("Fleet.Api");

    public static string HostAgent => PathOf("Fleet.HostAgent");

    public static string TinyVmm => PathOf("Fleet.TinyVmm");

    private static string PathOf(string name)
    {
        var path = typeof(Programs).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(attribute => attribute.Key == name).Value!;
        return File.Exists(path) ? path : throw new FileNotFoundException($"{path} is not built; run: dotnet build Fleet.sln");
    }
}
