using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace Fleet.Data.Migrations
{
    /// <inheritdoc />
    public partial class Gate : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.AddColumn<bool>(
                name: "Quarantined",
                table: "vms",
                type: "INTEGER",
                nullable: false,
                defaultValue: false);

            migrationBuilder.AddColumn<bool>(
                name: "ResetWanted",
                table: "vms",
                type: "INTEGER",
                nullable: false,
                defaultValue: false);

            migrationBuilder.CreateTable(
                name: "migrations",
                columns: table => new
                {
                    Id = table.Column<string>(type: "TEXT", maxLength: 64, nullable: false),
                    Vm = table.Column<string>(type: "TEXT", maxLength: 64, nullable: false),
                    SourceHost = table.Column<string>(type: "TEXT", maxLength: 64, nullable: true),
                    TargetHost = table.Column<string>(type: "TEXT", maxLength: 64, nullable: true),
                    Attach = table.Column<string>(type: "TEXT", nullable: true),
                    SourceAttach = table.Column<string>(type: "TEXT", nullable: true),
                    State = table.Column<string>(type: "TEXT", maxLength: 16, nullable: false),
                    Generation = table.Column<long>(type: "INTEGER", nullable: false),
                    SealEpoch = table.Column<long>(type: "INTEGER", nullable: true),
                    SealTargetInstance = table.Column<string>(type: "TEXT", maxLength: 128, nullable: true),
                    Ack = table.Column<string>(type: "TEXT", nullable: true),
                    SourceFenced = table.Column<bool>(type: "INTEGER", nullable: false),
                    FenceReason = table.Column<string>(type: "TEXT", nullable: true),
                    ReturnWanted = table.Column<bool>(type: "INTEGER", nullable: false),
                    Lifted = table.Column<bool>(type: "INTEGER", nullable: false),
                    PermitEpoch = table.Column<long>(type: "INTEGER", nullable: true),
                    PermitGeneration = table.Column<long>(type: "INTEGER", nullable: true),
                    PermitVmmInstance = table.Column<string>(type: "TEXT", maxLength: 128, nullable: true),
                    ExpiresAt = table.Column<long>(type: "INTEGER", nullable: false),
                    Reasons = table.Column<string>(type: "TEXT", nullable: false),
                    CreatedAt = table.Column<long>(type: "INTEGER", nullable: false),
                    Version = table.Column<long>(type: "INTEGER", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("PK_migrations", x => x.Id);
                });

            migrationBuilder.CreateIndex(
                name: "IX_migrations_SourceHost",
                table: "migrations",
                column: "SourceHost",
                filter: "\"State\" IN ('preparing', 'switching', 'granted')");

            migrationBuilder.CreateIndex(
                name: "IX_migrations_TargetHost",
                table: "migrations",
                column: "TargetHost",
                filter: "\"State\" IN ('preparing', 'switching', 'granted')");

            migrationBuilder.CreateIndex(
                name: "one_active_migration",
                table: "migrations",
                column: "Vm",
                unique: true,
                filter: "\"State\" IN ('preparing', 'switching', 'granted')");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "migrations");

            migrationBuilder.DropColumn(
                name: "Quarantined",
                table: "vms");

            migrationBuilder.DropColumn(
                name: "ResetWanted",
                table: "vms");
        }
    }
}
