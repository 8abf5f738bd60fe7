namespace Fleet.Api.Security;

/// <summary>What a credential may do; each is an authorization policy of the same name.</summary>
public static class Scopes
{
    public const string Read = "read";
    public const string ReadHardware = "read:hardware";
    public const string VmsWrite = "vms:write";
    public const string PagesWrite = "pages:write";
    public const string PagesClear = "pages:clear";
    public const string MigrationsWrite = "migrations:write";
    public const string MigrationsFence = "migrations:fence";
    public const string HostsWrite = "hosts:write";

    /// <summary>Implies all the others but <see cref="Agent"/>.</summary>
    public const string Admin = "admin";

    /// <summary>Bound to one host; good for nothing but that host's agent routes.</summary>
    public const string Agent = "agent";

    public static readonly string[] All =
        [Read, ReadHardware, VmsWrite, PagesWrite, PagesClear, MigrationsWrite, MigrationsFence, HostsWrite, Admin, Agent];
}
